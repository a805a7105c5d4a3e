//! The inner loops, each on its own: scan, count, learn, encode, decode. Every one asserts its answer before it is timed.
//!
//! `cargo bench` prints times and throughputs; the text is made up here, so that no file is needed. What whole programs
//! take, beside others, is measured by `python -m benches`.

use criterion::{BatchSize, Criterion, Throughput};
use std::hint::black_box;
use tinygpt::{Cache, Cleaning, Counts, Cutting, Encoder, Job, Pattern, Texts, Vocab, count_pieces, learn};

const TEXT_BYTES: usize = 1 << 20;
const MERGES: usize = 4096;

/// A small generator of random numbers (xorshift), so that the text is the same everywhere.
struct Random(u64);

impl Random {
    /// A number below `n`, small ones more often, as ranks of words are.
    fn rank(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let share = (self.0 >> 11) as f64 / (1u64 << 53) as f64;
        ((n as f64).powf(share) - 1.0) as usize
    }
}

/// Words of a made-up language whose frequencies fall as in English, with numbers, signs, line ends and some Chinese.
fn text() -> String {
    let syllables = ["the", "an", "er", "in", "to", "re", "st", "on", "al", "ti", "ou", "sh", "ä", "ing", "be", "qu"];
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let words: Vec<String> = (0..20_000).map(|_| (0..=random.rank(5)).map(|_| syllables[random.rank(syllables.len())]).collect()).collect();
    let mut text = String::with_capacity(TEXT_BYTES + 64);
    while text.len() < TEXT_BYTES {
        text.push_str(&words[random.rank(words.len())]);
        match random.rank(400) {
            100..=120 => text.push_str(", "),
            121..=140 => text.push_str(".\n\n"),
            141..=145 => text.push_str(" 1984 "),
            146..=150 => text.push_str("字幕組'll "),
            _ => text.push(' '),
        }
    }
    text
}

fn counts_of(text: &str, pattern: &Pattern) -> Counts {
    let mut proceed = |_| true;
    let mut job = Job::new(Some(1), &mut proceed).expect("one thread");
    let texts = [text];
    let mut source = Texts::new(&texts, 0, Cutting::new(pattern.clone(), 1 << 20));
    count_pieces(&mut source, pattern, &[], &Cleaning::none(), Counts::new(), &mut job).expect("the text is short").0
}

fn learnt(counts: Counts) -> Vec<(u32, u32)> {
    let mut proceed = |_| true;
    let mut job = Job::new(Some(1), &mut proceed).expect("one thread");
    learn(counts, MERGES, None, &mut job).expect("nobody stops it").merges
}

fn encoder(text: &str) -> Encoder {
    let merges = learnt(counts_of(text, &Pattern::Gpt2));
    Encoder::new(Vocab::trained(Pattern::Gpt2, &merges, &[]).expect("merges as learnt"))
}

fn scan(criterion: &mut Criterion) {
    let text = text();
    let mut group = criterion.benchmark_group("scan");
    group.throughput(Throughput::Bytes(text.len() as u64));
    for (name, pattern) in Pattern::NAMES {
        assert_eq!(pattern.pieces(&text).map(<[u8]>::len).sum::<usize>(), text.len());
        group.bench_function(name, |bencher| bencher.iter(|| black_box(pattern.pieces(black_box(&text)).count())));
    }
    group.finish();
}

fn count(criterion: &mut Criterion) {
    let text = text();
    let mut total = 0;
    let sum = counts_of(&text, &Pattern::Gpt2).for_each(|piece, n| {
        total += piece.len() as u64 * n;
        Ok(())
    });
    sum.expect("all is in memory");
    assert_eq!(total, text.len() as u64);
    let mut group = criterion.benchmark_group("count");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("gpt2", |bencher| bencher.iter(|| black_box(counts_of(black_box(&text), &Pattern::Gpt2))));
    group.finish();
}

fn merge(criterion: &mut Criterion) {
    let text = text();
    let counts = counts_of(&text, &Pattern::Gpt2);
    let merges = learnt(counts.clone());
    assert_eq!(merges.len(), MERGES);
    let mut group = criterion.benchmark_group("learn");
    group.throughput(Throughput::Elements(MERGES as u64));
    group.bench_function("4096 merges", |bencher| {
        bencher.iter_batched(|| counts.clone(), |counts| black_box(learnt(counts)), BatchSize::LargeInput);
    });
    group.finish();
}

fn encode(criterion: &mut Criterion) {
    let text = text();
    let encoder = encoder(&text);
    let mut ids = Vec::new();
    encoder.encode(&text, &mut Cache::default(), &mut ids);
    assert_eq!(encoder.decode(&ids).expect("ids of its own"), text.as_bytes());
    let mut group = criterion.benchmark_group("encode");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("cold", |bencher| {
        bencher.iter_batched_ref(
            || (Cache::default(), Vec::with_capacity(text.len())),
            |(cache, ids)| encoder.encode(black_box(&text), cache, ids),
            BatchSize::LargeInput,
        );
    });
    let mut cache = Cache::default();
    group.bench_function("warm", |bencher| {
        bencher.iter(|| {
            ids.clear();
            encoder.encode(black_box(&text), &mut cache, &mut ids);
        });
    });
    let letters = "q".repeat(TEXT_BYTES);
    group.bench_function("one piece of 1 MiB", |bencher| {
        bencher.iter(|| {
            ids.clear();
            encoder.encode(black_box(&letters), &mut cache, &mut ids);
        });
    });
    group.finish();
}

fn decode(criterion: &mut Criterion) {
    let text = text();
    let encoder = encoder(&text);
    let mut ids = Vec::new();
    encoder.encode(&text, &mut Cache::default(), &mut ids);
    assert_eq!(encoder.decode(&ids).expect("ids of its own"), text.as_bytes());
    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Bytes(text.len() as u64));
    group.bench_function("ids", |bencher| bencher.iter(|| black_box(encoder.decode(black_box(&ids)))));
    group.finish();
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for bench in [scan, count, merge, encode, decode] {
        bench(&mut criterion);
    }
    criterion.final_summary();
}
