// Bulk copies of tensor tiles into shared memory, the barriers they complete on, and clusters of blocks: sm_90 and later.
//   A barrier turns over when as many threads have arrived as it was made for and all announced bytes have come; `phase` is the parity of
//   the turn that is waited for. A tile lands with its rows of 128 bytes swizzled: 16-byte chunk c of row r lies at c ^ (r % 8); of 64 bytes: at c ^ (r / 2 % 4), of 32: at c ^ (r / 4 % 2).
#pragma once
#include "mma.cuh"

struct alignas(64) TensorMap { unsigned long long word[16]; };
typedef unsigned long long Barrier;

// Dynamic shared memory from a multiple of 1024 bytes on, which swizzled tiles need: 1024 bytes more than what is used are asked for.
#define SWIZZLED_SHARED(NAME)                      \
    extern __shared__ unsigned char NAME##_from[]; \
    unsigned char* NAME = NAME##_from + (1024 - shared_address(NAME##_from) % 1024) % 1024

// Where something lies in shared memory, and a barrier: in bytes, so that neither is computed from a pointer each time
typedef unsigned Shared, BarrierAt;
__device__ __forceinline__ Shared shared_of(const void* at) { return shared_address(at); }
__device__ __forceinline__ BarrierAt barrier_of(const Barrier* first) { return shared_address(first); }
__device__ __forceinline__ BarrierAt barrier_at(BarrierAt first, int which) { return first + which * (int)sizeof(Barrier); }

__device__ __forceinline__ void barrier_make(BarrierAt at, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(arrivals) : "memory");
}
// after the last barrier is made, before anyone uses one
__device__ __forceinline__ void barriers_made() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ __forceinline__ void barrier_arrive(BarrierAt at) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory"); }
// in block `rank` of the cluster
__device__ __forceinline__ void barrier_arrive(BarrierAt at, unsigned rank) {
    asm volatile("{ .reg .b32 there; mapa.shared::cluster.u32 there, %0, %1; mbarrier.arrive.shared::cluster.b64 _, [there]; }"
                 ::"r"(at), "r"(rank) : "memory");
}
__device__ __forceinline__ void barrier_expect(BarrierAt at, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(bytes) : "memory");
}
// whether it has turned over, without waiting
__device__ __forceinline__ bool barrier_passed(BarrierAt at, int phase) {
    unsigned done;
    asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(done) : "r"(at), "r"(phase) : "memory");
    return done;
}
__device__ __forceinline__ void barrier_wait(BarrierAt at, int phase) {
    unsigned done;
    do {
        asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                     : "=r"(done) : "r"(at), "r"(phase) : "memory");
    } while (!done);
}

// The tile whose first element has these coordinates, innermost axis first; what lies outside the tensor comes as zeros.
__device__ __forceinline__ void copy_tile(Shared to, const TensorMap* map, BarrierAt done, int x, int y, int z, int w) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];"
                 ::"r"(to), "l"(map), "r"(done), "r"(x), "r"(y), "r"(z), "r"(w) : "memory");
}
// the same into every block of the cluster whose bit is set, and on the barriers there
__device__ __forceinline__ void copy_tile(Shared to, const TensorMap* map, BarrierAt done, int x, int y, int z, int w, int blocks) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%3, %4, %5, %6}], [%2], %7;"
                 ::"r"(to), "l"(map), "r"(done), "r"(x), "r"(y), "r"(z), "r"(w), "h"((short)blocks) : "memory");
}
// Channels from `c` on of as many windows of an image as the map says, one behind the other in the order of output pixels: (x, y, n) is the
// corner of the first one, (right, down) the tap.
__device__ __forceinline__ void copy_windows(Shared to, const TensorMap* map, BarrierAt done, int c, int x, int y, int n, int right, int down) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2], {%7, %8};"
                 ::"r"(to), "l"(map), "r"(done), "r"(c), "r"(x), "r"(y), "r"(n), "h"((short)right), "h"((short)down)
                 : "memory");
}
// The same of volumes, whose axes are (channel, column, row, slice, volume)
__device__ __forceinline__ void copy_windows(
    Shared to, const TensorMap* map, BarrierAt done, int c, int x, int y, int z, int n, int right, int down, int deep) {
    asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6, %7}], [%2], {%8, %9, %10};"
                 ::"r"(to), "l"(map), "r"(done), "r"(c), "r"(x), "r"(y), "r"(z), "r"(n), "h"((short)right), "h"((short)down), "h"((short)deep)
                 : "memory");
}
__device__ __forceinline__ void prefetch_map(const TensorMap* map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }

// What is the same for all threads of a warp, so that the compiler knows
__device__ __forceinline__ int of_warp(int x) { return __shfl_sync(0xffffffffu, x, 0); }
__device__ __forceinline__ unsigned cluster_rank() {
    unsigned rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
// All threads of all blocks of the cluster; those of a warp must come together. What they wrote is seen by the others only where they `share`:
// that costs a fence of the whole GPU, as would a scope of the cluster at the barriers above.
__device__ __forceinline__ void cluster_sync(bool share) {
    __syncwarp();
    if (share) asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory");
    else asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
    asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// N floats (1 or 4) of another block's shared memory; of this one's, whose rank is `own`, where that is asked for: a way that is shorter
template <int N> __device__ __forceinline__ Pack<float, N> read_there(const float* at, unsigned rank, unsigned own) {
    Pack<float, N> x;
    if constexpr (N == 1) {
        asm volatile("{ .reg .b32 there; .reg .pred here; setp.eq.u32 here, %2, %3; mapa.shared::cluster.u32 there, %1, %2;\n"
                     "@here ld.shared.f32 %0, [%1]; @!here ld.shared::cluster.f32 %0, [there]; }"
                     : "=f"(x.lane[0]) : "r"(shared_address(at)), "r"(rank), "r"(own) : "memory");
        return x;
    } else {
        asm volatile("{ .reg .b32 there; .reg .pred here; setp.eq.u32 here, %5, %6; mapa.shared::cluster.u32 there, %4, %5;\n"
                     "@here ld.shared.v4.f32 {%0, %1, %2, %3}, [%4]; @!here ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [there]; }"
                     : "=f"(x.lane[0]), "=f"(x.lane[1]), "=f"(x.lane[2]), "=f"(x.lane[3]) : "r"(shared_address(at)), "r"(rank), "r"(own) : "memory");
        return x;
    }
}
// What this thread wrote to shared memory is seen by products that begin after a barrier.
__device__ __forceinline__ void show_products() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
// `threads` of the block, a multiple of 32, meet at one of 15 barriers
__device__ __forceinline__ void meet(int which, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(which), "r"(threads) : "memory"); }

template <int N> __device__ __forceinline__ void registers_up() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(N)); }
template <int N> __device__ __forceinline__ void registers_down() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(N)); }
