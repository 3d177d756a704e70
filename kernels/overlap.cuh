// A kernel of a graph may begin before the one before it has ended (programmatic dependent launch, sm_90 and later).
//   take_turn() stands in every kernel, for every thread, before the first access to global memory that another kernel touches. It lets the next
//   kernel's blocks come as soon as all of this one's have begun, and waits until the kernel before has ended and what it wrote is seen.
// Why that is enough: every kernel waits, so one that has ended has seen the end of the one before it, which has seen the end of those before that:
// whoever is past take_turn() runs after all earlier kernels, as without overlap, and memory that they used may be used again. What stands before
// it (barriers in shared memory, tensor maps, index arithmetic) runs beside them. Where a launch does not ask for overlap both are nothing.
#pragma once

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
__device__ __forceinline__ void admit_next() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
__device__ __forceinline__ void wait_for_previous() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
#else
__device__ __forceinline__ void admit_next() {}
__device__ __forceinline__ void wait_for_previous() {}
#endif

__device__ __forceinline__ void take_turn() {
    admit_next();
    wait_for_previous();
}
