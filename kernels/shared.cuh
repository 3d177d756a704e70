// Shared memory whose size the launch says.
#pragma once

#ifndef DYNAMIC_SHARED
#define DYNAMIC_SHARED(NAME) extern __shared__ __align__(16) unsigned char NAME[]
#endif
