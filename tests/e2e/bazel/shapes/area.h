#pragma once

namespace shapes {
int area(int width, int height);
}
