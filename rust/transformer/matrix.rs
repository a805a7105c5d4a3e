//! Weights as they lie in memory: float32, bfloat16, or bytes with a scale for each 64.

use crate::memory::prefetch;
use rayon::prelude::*;

/// How weights are kept. What is computed with them is float32 always.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 4 bytes a weight, as trained.
    Float32,
    /// 2 bytes a weight: the first 16 bits, rounded to nearest, ties to even.
    Bfloat16,
    /// 1 byte a weight and a float32 for each [`GROUP`]: the largest of a group is 127.
    Int8,
}

/// Columns that share a scale; rows are padded to a whole number of them with zeros.
pub(crate) const GROUP: usize = 64;
/// Numbers handled at once: a vector register of AVX-512, two of AVX2, four of NEON.
pub(crate) const LANES: usize = 16;
pub(crate) type Lanes = [f32; LANES];

/// A stored number, and how sixteen of them become float32.
pub(crate) trait Element: Copy + Default + Send + Sync + 'static {
    /// How keys and values are kept beside such weights.
    type Cached: Element;
    const IS_SCALED: bool;
    /// Of one number; `scale` is 1 unless these are scaled.
    fn store(value: f32, scale: f32) -> Self;
    fn load(self) -> f32;
    #[inline(always)]
    fn lanes(stored: &[Self; LANES]) -> Lanes {
        let mut lanes = [0.0; LANES];
        for i in 0..LANES {
            lanes[i] = stored[i].load();
        }
        lanes
    }
}

impl Element for f32 {
    type Cached = f32;
    const IS_SCALED: bool = false;
    #[inline(always)]
    fn store(value: f32, _scale: f32) -> f32 {
        value
    }
    #[inline(always)]
    fn load(self) -> f32 {
        self
    }
}

/// The upper half of a float32.
#[derive(Clone, Copy, Default)]
pub(crate) struct Bfloat16(u16);

impl Element for Bfloat16 {
    type Cached = Bfloat16;
    const IS_SCALED: bool = false;
    #[inline(always)]
    fn store(value: f32, _scale: f32) -> Bfloat16 {
        let bits = value.to_bits();
        if value.is_nan() {
            return Bfloat16(0x7fc0);
        }
        Bfloat16((bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16) as u16)
    }
    #[inline(always)]
    fn load(self) -> f32 {
        f32::from_bits(u32::from(self.0) << 16)
    }
}

impl Element for i8 {
    type Cached = Bfloat16;
    const IS_SCALED: bool = true;
    #[inline(always)]
    fn store(value: f32, scale: f32) -> i8 {
        if scale == 0.0 { 0 } else { (value / scale).round_ties_even() as i8 }
    }
    #[inline(always)]
    fn load(self) -> f32 {
        f32::from(self)
    }
}

/// A matrix by rows, each an output of a linear layer or the embedding of a token.
pub(crate) struct Matrix<E> {
    pub n_rows: usize,
    /// Columns, padded to a whole number of groups.
    pub stride: usize,
    data: Vec<E>,
    scales: Vec<f32>,
}

/// `n` columns as they lie in memory.
pub(crate) fn padded(n: usize) -> usize {
    n.next_multiple_of(GROUP)
}

impl<E: Element> Matrix<E> {
    /// Of float32 rows one after the other.
    pub fn new(weights: &[f32], n_rows: usize) -> Matrix<E> {
        let n_columns = weights.len() / n_rows;
        let stride = padded(n_columns);
        let n_groups = if E::IS_SCALED { stride / GROUP } else { 0 };
        let (mut data, mut scales) = (vec![E::default(); n_rows * stride], vec![0.0; n_rows * n_groups]);
        let fill = |row: &[f32], stored: &mut [E], scales: &mut [f32]| {
            for (i, (group, stored)) in row.chunks(GROUP).zip(stored.chunks_mut(GROUP)).enumerate() {
                let largest = group.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
                let scale = if E::IS_SCALED { largest / 127.0 } else { 1.0 };
                if E::IS_SCALED {
                    scales[i] = scale;
                }
                for (value, stored) in group.iter().zip(stored) {
                    *stored = E::store(*value, scale);
                }
            }
        };
        if E::IS_SCALED {
            let stored = data.par_chunks_mut(stride).zip(scales.par_chunks_mut(n_groups));
            weights.par_chunks(n_columns).zip(stored).for_each(|(row, (stored, scales))| fill(row, stored, scales));
        } else {
            weights.par_chunks(n_columns).zip(data.par_chunks_mut(stride)).for_each(|(row, stored)| fill(row, stored, &mut []));
        }
        Matrix { n_rows, stride, data, scales }
    }

    #[inline(always)]
    pub fn row(&self, i: usize) -> &[[E; LANES]] {
        self.data[i * self.stride..(i + 1) * self.stride].as_chunks().0
    }

    /// Asks for row `i`, if there is one.
    #[inline(always)]
    pub fn prefetch(&self, i: usize) {
        for at in (i * self.stride..(i + 1) * self.stride).step_by(64 / size_of::<E>()) {
            prefetch(&self.data, at);
        }
    }

    #[inline(always)]
    pub fn scales(&self, i: usize) -> &[f32] {
        let n = if E::IS_SCALED { self.stride / GROUP } else { 0 };
        &self.scales[i * n..(i + 1) * n]
    }

    /// Row `i` as float32, into `row`, which may be longer or shorter.
    pub fn read(&self, i: usize, row: &mut [f32]) {
        let scales = self.scales(i);
        for (j, (to, from)) in row.iter_mut().zip(self.row(i).as_flattened()).enumerate() {
            *to = from.load() * if E::IS_SCALED { scales[j / GROUP] } else { 1.0 };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_weight_is_off_by_half_a_step_at_most(weights in prop::collection::vec(-4.0_f32..4.0, 150)) {
            let matrix = Matrix::<i8>::new(&weights, 2);
            for (i, row) in weights.chunks(75).enumerate() {
                let mut found = vec![f32::NAN; 75];
                matrix.read(i, &mut found);
                for (j, (found, wanted)) in found.iter().zip(row).enumerate() {
                    let step = row.chunks(GROUP).nth(j / GROUP).unwrap().iter().fold(0.0_f32, |most, value| most.max(value.abs())) / 127.0;
                    prop_assert!((found - wanted).abs() <= step * 0.5001, "{found} for {wanted}");
                }
            }
        }

        #[test]
        fn bfloat16_is_the_nearest_one(value in any::<f32>()) {
            prop_assume!(value.is_finite() && value.abs() < 3.3e38);
            let found = Bfloat16::store(value, 1.0);
            let error = |bits: u16| {
                let stored = Bfloat16(bits).load();
                if stored.is_finite() { (f64::from(stored) - f64::from(value)).abs() } else { f64::INFINITY }
            };
            prop_assert!(error(found.0) <= error(found.0.wrapping_sub(1)) && error(found.0) <= error(found.0.wrapping_add(1)));
        }
    }

    #[test]
    fn a_tie_goes_to_the_even_one_and_nan_stays() {
        assert_eq!(Bfloat16::store(f32::from_bits(0x3f80_8000), 1.0).0, 0x3f80);
        assert_eq!(Bfloat16::store(f32::from_bits(0x3f81_8000), 1.0).0, 0x3f82);
        assert!(Bfloat16::store(f32::NAN, 1.0).load().is_nan());
    }
}
