#include "shapes/name.h"

#include <cstdio>

shapes::Name shapes::name(int number) {
    Name made{};
    std::snprintf(made.text, sizeof made.text, "shape %d", number);
    return made;
}
