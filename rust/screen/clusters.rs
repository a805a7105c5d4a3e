//! Sets of documents that are joined pair by pair.

use rustc_hash::FxHashMap;

/// Union-find over the numbers that were joined; the lowest of a set stands for it, so the numbers with a parent are all the
/// others. Holds 20 to 40 bytes for each of these.
#[derive(Default)]
pub struct Clusters {
    parents: FxHashMap<u64, u64>,
}

impl Clusters {
    /// Makes one set of those of both numbers.
    pub fn join(&mut self, a: u64, b: u64) {
        let (a, b) = (self.lowest(a), self.lowest(b));
        if a != b {
            self.parents.insert(a.max(b), a.min(b));
        }
    }

    fn lowest(&mut self, mut number: u64) -> u64 {
        while let Some(&parent) = self.parents.get(&number) {
            // Every second step is saved the next time.
            if let Some(&next) = self.parents.get(&parent) {
                self.parents.insert(number, next);
            }
            number = parent;
        }
        number
    }

    /// All numbers but the lowest of each set, in no order.
    pub fn others(&self) -> impl Iterator<Item = u64> {
        self.parents.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sets_are_those_of_plain_relabelling(pairs in prop::collection::vec((0u64..30, 0u64..30), 0..40)) {
            let mut labels: Vec<u64> = (0..30).collect();
            let mut clusters = Clusters::default();
            for (a, b) in pairs {
                clusters.join(a, b);
                let (a, b) = (labels[a as usize], labels[b as usize]);
                for label in labels.iter_mut().filter(|label| **label == a.max(b)) {
                    *label = a.min(b);
                }
            }
            let mut others: Vec<u64> = clusters.others().collect();
            others.sort_unstable();
            let expected: Vec<u64> = (0..30).filter(|i| labels[*i as usize] != *i).collect();
            prop_assert_eq!(others, expected);
        }
    }
}
