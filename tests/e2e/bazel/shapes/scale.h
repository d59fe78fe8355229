#pragma once

namespace shapes {
template <typename Number>
Number scaled(Number value, Number by) {
    return value * by;
}

int one();
}  // namespace shapes
