#include <cstdio>

#include "shapes/area.h"
#include "shapes/name.h"
#include "version.h"

int main() {
    const shapes::Name name = shapes::name(shapes::area(6, 7));
    std::printf("%s of %s\n", name.text, VERSION);
}
