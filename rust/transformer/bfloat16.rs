//! Products of bfloat16 with bfloat16, two to a lane, for processors that have the instruction for it (AVX512-BF16:
//! AMD since Zen 4, Intel's servers since Cooper Lake).
//!
//! The inputs are rounded to bfloat16, as torch and llama.cpp do for such weights; sums are float32. Against weights that are
//! converted and multiplied in float32, a prompt of 200 tokens took 52 ms for 76, a token of sixteen streams 9.7 for 15.0
//! (41.7 M parameters, two cores of an AMD EPYC, Zen 5); part of it is that four sums are added together by `totals`.
//!
//! As in [`super::kernels`] every sum has the same shape whatever stands beside it: lane i adds up the pairs i, i + 16,
//! i + 32, ... in this order, then the lanes are added in halves.

use super::kernels::{Block, write};
use super::matrix::{Bfloat16, LANES, SIDE};
use std::arch::x86_64::{
    __m512, __m512bh, _mm_storeu_ps, _mm512_add_ps, _mm512_castps512_ps128, _mm512_dpbf16_ps, _mm512_maskz_compress_ps, _mm512_setzero_ps,
    _mm512_shuffle_f32x4, _mm512_shuffle_ps,
};
use std::mem::transmute;

type Work<'a> = Block<'a, Bfloat16, Bfloat16>;
/// Numbers of a register.
type Pairs = [Bfloat16; 2 * LANES];

/// Inputs of a tile at most; with four rows of weights they fill 24 of 32 registers with sums.
const TILE: usize = 6;
/// Up to so many inputs, all weights of a task meet those of one tile before the next tile's: then the weights come from
/// memory in one stream, and from the second cache for the other tiles. Sixteen inputs took 9.0 ms the other way round and
/// take 8.1.
const FEW: usize = 32;
/// Bytes of more inputs that stay in the first cache while weights come by: 200 inputs took 44.1 ms by one tile and take 41.7.
const NEAR_BYTES: usize = 24 << 10;

/// See [`super::kernels::Products::block`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,bmi2")]
pub(crate) fn block(work: &Work<'_>) {
    let near = NEAR_BYTES / (2 * work.weights.stride) / TILE * TILE;
    let n = if work.n_inputs <= FEW { TILE } else { near.max(TILE) };
    for first in (0..work.n_inputs).step_by(n) {
        let last = (first + n).min(work.n_inputs);
        for row in work.rows.clone().step_by(SIDE) {
            tiles(work, row, first, last);
        }
    }
}

/// [`SIDE`] rows of weights from `row` with the inputs from `first` to `last`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,bmi2")]
fn tiles(work: &Work<'_>, row: usize, mut first: usize, last: usize) {
    while last - first >= TILE {
        tile::<TILE>(work, row, first);
        first += TILE;
    }
    if last - first >= 4 {
        tile::<4>(work, row, first);
        first += 4;
    }
    if last - first >= 2 {
        tile::<2>(work, row, first);
        first += 2;
    }
    if first < last {
        tile::<1>(work, row, first);
    }
}

/// The scalar products of [`SIDE`] rows of weights from `row` with `N_X` rows of input from `first`, to where they belong.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,bmi2")]
fn tile<const N_X: usize>(work: &Work<'_>, row: usize, first: usize) {
    let stride = work.weights.stride;
    let n = stride / (2 * LANES);
    // All of one length that the compiler sees, so that it checks no index below.
    let rows: &[[Pairs; SIDE]] = &work.weights.side(row).as_flattened().as_chunks().0.as_chunks().0[..n];
    let mut columns: [&[Pairs]; N_X] = [&[]; N_X];
    for x in 0..N_X {
        columns[x] = &work.inputs[(first + x) * stride..(first + x + 1) * stride].as_chunks().0[..n];
    }
    let mut sums = [[_mm512_setzero_ps(); SIDE]; N_X];
    for i in 0..n {
        let w = [register(&rows[i][0]), register(&rows[i][1]), register(&rows[i][2]), register(&rows[i][3])];
        for x in 0..N_X {
            let input = register(&columns[x][i]);
            for r in 0..SIDE {
                sums[x][r] = _mm512_dpbf16_ps(sums[x][r], w[r], input);
            }
        }
    }
    let n_rows = SIDE.min(work.rows.end - row);
    let mut products = [[0.0; SIDE]; N_X];
    for x in 0..N_X {
        products[x] = totals(sums[x]);
    }
    if n_rows == SIDE {
        write(work, row, first, &products);
    } else {
        for x in 0..N_X {
            for r in 0..n_rows {
                write(work, row + r, first + x, &[[products[x][r]]]);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn register(pairs: &Pairs) -> __m512bh {
    // SAFETY: both are 32 numbers of 16 bits, for which any bits will do.
    #[allow(unsafe_code)]
    unsafe {
        transmute::<Pairs, __m512bh>(*pairs)
    }
}

/// The sums of the lanes of each, in halves, as [`total`] adds them.
#[inline]
#[target_feature(enable = "avx512f")]
fn totals([a, b, c, d]: [__m512; 4]) -> [f32; 4] {
    // Quarters of four lanes: of a and b, of c and d, the upper two upon the lower two.
    let ab = _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(a, b), _mm512_shuffle_f32x4::<0xee>(a, b));
    let cd = _mm512_add_ps(_mm512_shuffle_f32x4::<0x44>(c, d), _mm512_shuffle_f32x4::<0xee>(c, d));
    // Of each the second quarter upon the first.
    let four = _mm512_add_ps(_mm512_shuffle_f32x4::<0x88>(ab, cd), _mm512_shuffle_f32x4::<0xdd>(ab, cd));
    let two = _mm512_add_ps(four, _mm512_shuffle_ps::<0x4e>(four, four));
    let one = _mm512_add_ps(two, _mm512_shuffle_ps::<0xb1>(two, two));
    let firsts = _mm512_castps512_ps128(_mm512_maskz_compress_ps(0x1111, one));
    let mut result = [0.0; 4];
    // SAFETY: there are four places.
    #[allow(unsafe_code)]
    unsafe {
        _mm_storeu_ps(result.as_mut_ptr(), firsts);
    }
    result
}
