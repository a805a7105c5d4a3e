//! Streams of any model, fed in any order on three threads, have the bits that each has alone on one; what is refused
//! changes nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tinygpt::{Activation, Decoder, Feed, Norm, Places, Precision, Shape, Tensors};

/// Sizes, options, weights.
type Model = ([u8; 6], u8, Vec<i8>);
/// New tokens of some streams, or to how many tokens which stream is cut.
type Step = Result<Vec<(u8, Vec<u8>)>, (u8, u8)>;

const SLOTS: usize = 3;

fuzz_target!(|input: (Model, Vec<Step>)| {
    let (model, steps) = input;
    let shape = shape(&model);
    let tensors = tensors(&shape, &model);
    let slices: Tensors<'_> = tensors.iter().map(|(name, values)| (name.clone(), values.as_slice())).collect();
    let precision = [Precision::Float32, Precision::Bfloat16, Precision::Int8][usize::from(model.1 % 3)];
    let decoder = |slots, threads| Decoder::new(&shape, &slices, precision, slots, threads).unwrap();
    let mut together = decoder(SLOTS, 3);
    let mut alone: Vec<Decoder> = (0..SLOTS).map(|_| decoder(1, 1)).collect();
    for step in steps.iter().take(8) {
        match step {
            Err((slot, n)) => {
                let (slot, n) = (usize::from(*slot), usize::from(*n));
                let found = together.cut(slot, n).is_ok();
                assert_eq!(found, alone.get_mut(slot).is_some_and(|one| one.cut(0, n).is_ok()));
            }
            Ok(rows) => {
                let feed =
                    |(slot, ids): &(u8, Vec<u8>)| Feed { slot: usize::from(*slot), ids: ids.iter().map(|id| u32::from(*id)).collect() };
                let feeds: Vec<Feed> = rows.iter().take(4).map(feed).collect();
                let before = together.n_seen().to_vec();
                let Ok(logits) = together.extend(&feeds, false) else {
                    assert_eq!(together.n_seen(), before);
                    continue;
                };
                let each =
                    feeds.iter().flat_map(|feed| alone[feed.slot].extend(&[Feed { slot: 0, ids: feed.ids.clone() }], false).unwrap());
                let bits = |x: f32| if x.is_nan() { u32::MAX } else { x.to_bits() };
                assert!(logits.iter().map(|x| bits(*x)).eq(each.map(bits)), "{feeds:?}");
            }
        }
    }
});

fn shape((sizes, options, _): &Model) -> Shape {
    let [vocab_size, block_size, n_layer, n_kv, width, d_inner] = *sizes;
    let (n_kv, shares) = (1 + usize::from(n_kv % 3), 1 + usize::from(n_kv / 3 % 3));
    let n_head = n_kv * shares;
    let bit = |i: u8| options >> i & 1 == 1;
    Shape {
        vocab_size: 1 + usize::from(vocab_size),
        block_size: 1 + usize::from(block_size % 40),
        n_layer: 1 + usize::from(n_layer % 2),
        n_head,
        n_kv,
        d_model: n_head * 2 * (1 + usize::from(width % 40)),
        d_inner: 1 + usize::from(d_inner),
        places: if bit(2) { Places::Table } else { Places::Rotary(10_000.0) },
        norm: if bit(3) { Norm::Layer } else { Norm::Rms },
        activation: if bit(4) {
            Activation::Gelu
        } else if bit(5) {
            Activation::GeGlu
        } else {
            Activation::SwiGlu
        },
        norm_eps: 1e-5,
    }
}

fn tensors(shape: &Shape, (sizes, options, weights): &Model) -> Vec<(String, Vec<f32>)> {
    let mut next = weights.iter().cycle().copied().enumerate();
    let mut values =
        |n: usize| -> Vec<f32> { (0..n).map(|_| next.next().map_or(0.1, |(i, w)| f32::from(w) / 64.0 + (i % 7) as f32 / 50.0)).collect() };
    let (c, d) = (shape.d_model, shape.d_model / shape.n_head);
    let d_up = shape.d_inner * if shape.activation == Activation::Gelu { 1 } else { 2 };
    let mut tensors = vec![("token_embedding.weight".into(), values(shape.vocab_size * c)), ("norm.weight".into(), values(c))];
    if shape.places == Places::Table {
        tensors.push(("position.weight".into(), values(shape.block_size * c)));
    }
    if options >> 6 & 1 == 1 {
        tensors.push(("head.weight".into(), values(shape.vocab_size * c)));
    }
    for i in 0..shape.n_layer {
        let linears = [
            ("attention.qkv", (shape.n_head + 2 * shape.n_kv) * d, c),
            ("attention.output", c, c),
            ("feed_forward.up", d_up, c),
            ("feed_forward.down", c, shape.d_inner),
        ];
        for (name, rows, columns) in linears {
            tensors.push((format!("blocks.{i}.{name}.weight"), values(rows * columns)));
            if options >> 7 == 1 {
                tensors.push((format!("blocks.{i}.{name}.bias"), values(rows)));
            }
        }
        for name in ["attention_norm", "feed_forward_norm"] {
            tensors.push((format!("blocks.{i}.{name}.weight"), values(c)));
        }
        if sizes[3] & 1 == 1 {
            for name in ["q_norm", "k_norm"] {
                tensors.push((format!("blocks.{i}.attention.{name}.weight"), values(d)));
            }
        }
    }
    tensors
}
