#pragma once

namespace shapes {
struct Name {
    char text[32];
};

Name name(int number);
}  // namespace shapes
