// Stands in for kernels/shared.cuh where kernels run on the host.
#pragma once

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(NAME) alignas(16) static unsigned char NAME[256 << 10]
#endif
