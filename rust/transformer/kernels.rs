//! The inner loops, in plain Rust over sixteen lanes, which the compiler turns into the vectors of each instruction set.
//!
//! Every sum has the same shape whatever stands beside it: lane i adds up the numbers i, i + 16, i + 32, ... in this
//! order, then the lanes are added in halves. Tiles of several rows share what they load and change no sum.

use super::matrix::{Bfloat16, Element, GROUP, LANES, Lanes, Rows, SIDE};
use super::pass::{Pass, run};
use super::shared::Shared;
use std::hint::black_box;
use std::ops::Range;

/// An instruction set: how products are added.
pub(crate) trait Machine: Copy + Send + Sync + 'static {
    /// `a * b + c`, rounded once where the machine does so.
    fn multiply_add(a: f32, b: f32, c: f32) -> f32;
}

/// An instruction set at work on weights of one kind.
pub(crate) trait Products<E: Element>: Machine {
    /// How the inputs of a linear layer are kept.
    type Input: Element;
    /// Outputs of a linear layer, in the tiles that are fastest here.
    fn block(work: &Block<'_, E, Self::Input>);
    /// [`run`], compiled for this machine.
    ///
    /// # Safety
    ///
    /// The processor has the machine's instructions.
    #[allow(unsafe_code)]
    unsafe fn run(pass: &Pass<'_, E, Self>);
}

/// With fused multiply-add and 32 registers of sixteen lanes.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx512;
/// The same with products of bfloat16, two to a lane.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx512Bf16;
/// With fused multiply-add and 16 registers of eight lanes.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
pub(crate) struct Avx2;
/// Whatever the compiler's target has.
#[derive(Clone, Copy)]
pub(crate) struct Plain;

#[cfg(target_arch = "x86_64")]
impl Machine for Avx512 {
    #[inline(always)]
    fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
impl<E: Element> Products<E> for Avx512 {
    type Input = f32;
    #[inline(always)]
    fn block(work: &Block<'_, E, f32>) {
        block_in_tiles::<E, Self, 4, 6>(work);
    }
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi2")]
    unsafe fn run(pass: &Pass<'_, E, Self>) {
        run(pass);
    }
}

#[cfg(target_arch = "x86_64")]
impl Machine for Avx512Bf16 {
    #[inline(always)]
    fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
impl Products<Bfloat16> for Avx512Bf16 {
    type Input = Bfloat16;
    #[inline(always)]
    fn block(work: &Block<'_, Bfloat16, Bfloat16>) {
        // SAFETY: `Products::run` of this machine, whose caller promised the instructions, is all that comes here.
        unsafe { super::bfloat16::block(work) }
    }
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma,bmi2")]
    unsafe fn run(pass: &Pass<'_, Bfloat16, Self>) {
        run(pass);
    }
}

#[cfg(target_arch = "x86_64")]
impl Machine for Avx2 {
    #[inline(always)]
    fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
        a.mul_add(b, c)
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code)]
impl<E: Element> Products<E> for Avx2 {
    type Input = f32;
    #[inline(always)]
    fn block(work: &Block<'_, E, f32>) {
        block_in_tiles::<E, Self, 2, 2>(work);
    }
    #[target_feature(enable = "avx2,fma,bmi2")]
    unsafe fn run(pass: &Pass<'_, E, Self>) {
        run(pass);
    }
}

impl Machine for Plain {
    #[inline(always)]
    fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
        if cfg!(target_feature = "fma") || cfg!(target_arch = "aarch64") { a.mul_add(b, c) } else { a * b + c }
    }
}

#[allow(unsafe_code)]
impl<E: Element> Products<E> for Plain {
    type Input = f32;
    #[inline(always)]
    fn block(work: &Block<'_, E, f32>) {
        block_in_tiles::<E, Self, 2, 2>(work);
    }
    unsafe fn run(pass: &Pass<'_, E, Self>) {
        run(pass);
    }
}

/// Some rows of weights times all rows of input: outputs `rows` of a linear layer, for each input.
pub(crate) struct Block<'a, E, I> {
    pub weights: &'a Rows<'a, E>,
    /// One number for each row of weights, or nothing.
    pub bias: &'a [f32],
    pub rows: Range<usize>,
    /// Rows of the weights' `stride`.
    pub inputs: &'a [I],
    pub n_inputs: usize,
    pub outputs: &'a Shared<f32>,
    /// From one input's outputs to the next one's.
    pub output_stride: usize,
    /// Add to what stands there.
    pub is_added: bool,
}

/// `work` in tiles of `N_W` rows of weights and `N_X` of input; what is left over in smaller ones.
#[inline(always)]
fn block_in_tiles<E: Element, M: Machine, const N_W: usize, const N_X: usize>(work: &Block<'_, E, f32>) {
    let mut first = 0;
    while work.n_inputs - first >= N_X {
        strip::<E, M, N_W, N_X>(work, first);
        first += N_X;
    }
    while work.n_inputs - first >= 4 {
        strip::<E, M, N_W, 4>(work, first);
        first += 4;
    }
    while work.n_inputs - first >= 2 {
        strip::<E, M, N_W, 2>(work, first);
        first += 2;
    }
    if first < work.n_inputs {
        strip::<E, M, N_W, 1>(work, first);
    }
}

/// All rows of weights of `work` with the inputs from `first`, which stay in the first cache meanwhile.
#[inline(always)]
fn strip<E: Element, M: Machine, const N_W: usize, const N_X: usize>(work: &Block<'_, E, f32>, first: usize) {
    let stride = work.weights.stride;
    let mut inputs: [&[Lanes]; N_X] = [&[]; N_X];
    for x in 0..N_X {
        inputs[x] = work.inputs[(first + x) * stride..(first + x + 1) * stride].as_chunks().0;
    }
    let mut row = work.rows.start;
    while row + N_W <= work.rows.end {
        write(work, row, first, &tile::<E, M, N_W, N_X>(work.weights, row, &inputs));
        row += N_W;
    }
    while row < work.rows.end {
        write(work, row, first, &tile::<E, M, 1, N_X>(work.weights, row, &inputs));
        row += 1;
    }
}

/// The products of `N_W` rows of weights from `row` with the inputs from `first`, to where they belong.
#[inline(always)]
pub(crate) fn write<E: Element, I: Element, const N_W: usize, const N_X: usize>(
    work: &Block<'_, E, I>,
    row: usize,
    first: usize,
    products: &[[f32; N_W]; N_X],
) {
    let mut bias = [0.0; N_W];
    if !work.bias.is_empty() {
        bias.copy_from_slice(&work.bias[row..row + N_W]);
    }
    for x in 0..N_X {
        // SAFETY: each row of weights belongs to one task, so each output has one writer.
        #[allow(unsafe_code)]
        let outputs = unsafe { work.outputs.write((first + x) * work.output_stride + row, N_W) };
        for w in 0..N_W {
            let value = products[x][w] + bias[w];
            outputs[w] = if work.is_added { outputs[w] + value } else { value };
        }
    }
}

#[inline(always)]
pub(crate) fn fused<M: Machine>(a: &Lanes, b: &Lanes, sums: &mut Lanes) {
    for i in 0..LANES {
        sums[i] = M::multiply_add(a[i], b[i], sums[i]);
    }
}

/// The sum of the lanes, in halves; written out, or the compiler adds them one by one. (Four sums at once, for it to turn
/// and add as vectors, took a quarter longer.)
#[inline(always)]
pub(crate) fn total(lanes: &Lanes) -> f32 {
    let (mut eight, mut four) = ([0.0; 8], [0.0; 4]);
    for i in 0..8 {
        eight[i] = lanes[i] + lanes[i + 8];
    }
    for i in 0..4 {
        four[i] = eight[i] + eight[i + 4];
    }
    (four[0] + four[2]) + (four[1] + four[3])
}

/// The scalar products of `N_W` rows of weights from `first` with `N_X` rows of input.
#[inline(always)]
fn tile<E: Element, M: Machine, const N_W: usize, const N_X: usize>(
    weights: &Rows<'_, E>,
    first: usize,
    inputs: &[&[Lanes]; N_X],
) -> [[f32; N_W]; N_X] {
    let n = weights.stride / LANES;
    // All of one length that the compiler sees, so that it checks few indices below.
    let (side, at) = (&weights.side(first)[..n * SIDE], first % SIDE);
    let mut scales: [&[f32]; N_W] = [&[]; N_W];
    for r in 0..N_W {
        scales[r] = weights.scales(first + r);
    }
    let mut columns = *inputs;
    for x in 0..N_X {
        columns[x] = &inputs[x][..n];
    }
    let mut sums = [[[0.0_f32; LANES]; N_X]; N_W];
    for (line, rows) in side.chunks_exact(SIDE * E::LINE).enumerate() {
        for i in 0..E::LINE {
            let column = line * E::LINE + i;
            let mut w = [[0.0_f32; LANES]; N_W];
            for r in 0..N_W {
                w[r] = E::lanes(&rows[(at + r) * E::LINE + i]);
                if E::IS_SCALED {
                    let scale = scales[r][column / (GROUP / LANES)];
                    for value in &mut w[r] {
                        *value *= scale;
                    }
                }
            }
            for x in 0..N_X {
                for r in 0..N_W {
                    fused::<M>(&w[r], &columns[x][column], &mut sums[r][x]);
                }
            }
        }
    }
    // Through memory: else the compiler sees how the lanes are added below, and makes the loop above add rows, not lanes.
    let sums = black_box(sums);
    let mut products = [[0.0; N_W]; N_X];
    for x in 0..N_X {
        for r in 0..N_W {
            products[x][r] = total(&sums[r][x]);
        }
    }
    products
}

/// The scalar product of two rows of lanes.
#[inline(always)]
pub(crate) fn product<C: Element, M: Machine>(a: &[Lanes], b: &[[C; LANES]]) -> f32 {
    let mut sums = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        fused::<M>(a, &C::lanes(b), &mut sums);
    }
    total(&sums)
}

/// e to the power of each number, which is at most 88; below -87 it is 0. Relative error under 2e-7.
///
/// Source: Cody and Waite 1980, chapter 6, with the polynomial of the Cephes library for the rest.
#[inline(always)]
pub(crate) fn exponentials<M: Machine>(values: &mut [Lanes]) {
    for lanes in values {
        for value in lanes {
            *value = exponential::<M>(*value);
        }
    }
}

#[inline(always)]
fn exponential<M: Machine>(value: f32) -> f32 {
    let x = value.clamp(-87.3, 88.3);
    // The nearest whole number of log 2, by the sum whose last bit is worth one.
    let shifted = M::multiply_add(x, std::f32::consts::LOG2_E, 12_582_912.0);
    let n = shifted - 12_582_912.0;
    let r = M::multiply_add(n, 2.121_944_4e-4, M::multiply_add(n, -0.693_359_4, x));
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        p = M::multiply_add(p, r, coefficient);
    }
    let p = M::multiply_add(p, r * r, r + 1.0);
    // The exponent of a float is its bits from 23 on; `shifted` holds n in its lowest.
    let scale = f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0_f32.to_bits()));
    if value < -87.3 { 0.0 } else { p * scale }
}

/// `SiLU`: `x / (1 + e^-x)`.
#[inline(always)]
pub(crate) fn silu<M: Machine>(x: f32) -> f32 {
    x / (1.0 + exponential::<M>(-x))
}

/// GELU in its tanh form.
#[inline(always)]
pub(crate) fn gelu<M: Machine>(x: f32) -> f32 {
    const C: f32 = 0.797_884_6; // sqrt(2 / pi)
    // tanh(u) = 1 - 2 / (e^2u + 1), so half of 1 + tanh(u) is 1 - 1 / (e^2u + 1).
    let u = C * (x + 0.044_715 * x * x * x);
    x * (1.0 - 1.0 / (exponential::<M>(2.0 * u) + 1.0))
}

/// `input` over its root mean square, times `weight`.
#[inline(always)]
pub(crate) fn rms_norm<O: Element, M: Machine>(input: &[f32], weight: &[f32], eps: f32, output: &mut [O]) {
    let scale = 1.0 / (sum::<M>(input, |x| x * x) / input.len() as f32 + eps).sqrt();
    for ((y, x), w) in output.iter_mut().zip(input).zip(weight) {
        *y = O::store(x * scale * w, 1.0);
    }
}

/// `input` less its mean over its deviation, times `weight`, plus `bias` where there is one.
#[inline(always)]
pub(crate) fn layer_norm<O: Element, M: Machine>(input: &[f32], weight: &[f32], bias: &[f32], eps: f32, output: &mut [O]) {
    let mean = sum::<M>(input, |x| x) / input.len() as f32;
    let scale = 1.0 / (sum::<M>(input, |x| (x - mean) * (x - mean)) / input.len() as f32 + eps).sqrt();
    for (i, y) in output.iter_mut().enumerate() {
        *y = O::store((input[i] - mean) * scale * weight[i] + bias.get(i).copied().unwrap_or(0.0), 1.0);
    }
}

#[inline(always)]
fn sum<M: Machine>(values: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let (whole, rest) = values.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for lanes in whole {
        for i in 0..LANES {
            sums[i] += of(lanes[i]);
        }
    }
    for (i, value) in rest.iter().enumerate() {
        sums[i] += of(*value);
    }
    total(&sums)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn an_exponential_is_right_to_the_seventh_digit(x in -87.0_f32..88.0) {
            let (found, wanted) = (f64::from(exponential::<Plain>(x)), f64::from(x).exp());
            prop_assert!((found / wanted - 1.0).abs() < 2e-7, "{found} for {wanted}");
        }

        #[test]
        fn activations_are_those_of_the_textbook(x in -30.0_f32..30.0) {
            let wide = f64::from(x);
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (wide + 0.044_715 * wide.powi(3));
            prop_assert!((f64::from(gelu::<Plain>(x)) - 0.5 * wide * (1.0 + inner.tanh())).abs() < 1e-6 * (1.0 + wide.abs()));
            prop_assert!((f64::from(silu::<Plain>(x)) - wide / (1.0 + (-wide).exp())).abs() < 1e-6 * (1.0 + wide.abs()));
        }
    }

    #[test]
    fn far_away_there_is_nothing_or_all() {
        let edges = [exponential::<Plain>(f32::NEG_INFINITY), gelu::<Plain>(-100.0), silu::<Plain>(-200.0)];
        assert!(edges.iter().all(|edge| edge.abs() < 1e-30), "{edges:?}");
        let edges = [silu::<Plain>(200.0) - 200.0, gelu::<Plain>(100.0) - 100.0];
        assert!(edges.iter().all(|edge| edge.abs() < 1e-30), "{edges:?}");
        assert!(exponential::<Plain>(f32::NAN).is_nan());
    }
}
