//! The forward pass of a trained GPT on a CPU, for generation: new tokens of some streams in, logits out.
//!
//! Generating reads every weight once for each token, so it runs at the speed of memory if nothing stands in the way.
//! In torch much does: 150 small calls a token, and products of a few rows that take 2.5 times as long as those of one
//! (two cores of an AMD EPYC, Zen 5: a head of 32,000 x 512 in bfloat16 0.88 ms for one row, 2.3 ms for two, 3.6 ms for
//! sixteen). Here the threads go through a whole token together and meet at barriers, and sixteen rows cost three times
//! one (2.3 and 6.5 ms).
//!
//! **A stream's logits never depend on its company.** Each number is made by one thread, in an order that only the
//! widths of the model decide. So they are bit for bit the same whether a token comes alone, in a batch with others, or
//! as part of a prompt of any length, and for any number of threads. (torch's products have other bits for one row than
//! for two.)
//!
//! Training needs gradients, and stays in torch; what is written in both is held against each other by the tests.
//! Sources: those that `model.py` names; weights by groups of 64 as in Dettmers et al. 2022, section 2
//! (arXiv:2208.07339), without outliers apart: activations stay float32.

// All of a pass has to end up in the one function that may use wide instructions, and loops over lanes and tiles by
// number are what the compiler turns into vectors.
#![allow(clippy::inline_always, clippy::needless_range_loop)]

#[cfg(target_arch = "x86_64")]
mod bfloat16;
mod decoder;
mod kernels;
mod matrix;
mod model;
mod pass;
mod shared;

pub use decoder::{Decoder, Feed};
pub use matrix::Precision;
pub use model::{Activation, Norm, Places, Shape, Tensors};
