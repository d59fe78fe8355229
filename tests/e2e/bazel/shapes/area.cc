#include "shapes/area.h"

#include "shapes/scale.h"

int shapes::area(int width, int height) { return scaled(width * height, one()); }
