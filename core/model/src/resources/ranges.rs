//! Ranges of whole numbers, for ports and the like.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The numbers from `begin` to `end`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Range {
    /// The first number.
    pub begin: u64,
    /// The last number.
    pub end: u64,
}

/// A set of numbers as ranges: sorted, not touching each other, none empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Ranges(Vec<Range>);

impl Ranges {
    /// The union of these ranges; those that end before they begin count for nothing.
    pub fn new(ranges: impl IntoIterator<Item = Range>) -> Self {
        let mut ranges: Vec<_> = ranges.into_iter().filter(|r| r.begin <= r.end).collect();
        coalesce(&mut ranges);
        Self(ranges)
    }

    /// One range.
    #[must_use]
    pub fn one(begin: u64, end: u64) -> Self {
        Self::new([Range { begin, end }])
    }

    /// The ranges, in order.
    #[must_use]
    pub fn as_slice(&self) -> &[Range] {
        &self.0
    }

    /// The ranges, in order.
    pub fn iter(&self) -> impl Iterator<Item = Range> {
        self.0.iter().copied()
    }

    /// Whether there is no number at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.iter().fold(0_u64, |sum, r| {
            sum.saturating_add((r.end - r.begin).saturating_add(1))
        })
    }

    /// Whether this number is in it.
    #[must_use]
    pub fn has(&self, number: u64) -> bool {
        self.contains_range(Range {
            begin: number,
            end: number,
        })
    }

    /// Whether all numbers of `other` are in it.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        other.0.iter().all(|&range| self.contains_range(range))
    }

    fn contains_range(&self, range: Range) -> bool {
        let after = self.0.partition_point(|r| r.begin <= range.begin);
        after > 0 && self.0[after - 1].end >= range.end
    }

    /// Adds the numbers of `other`.
    pub fn add(&mut self, other: &Self) {
        self.0.extend_from_slice(&other.0);
        coalesce(&mut self.0);
    }

    /// Takes the numbers of `other` away.
    pub fn sub(&mut self, other: &Self) {
        let mut left = Vec::with_capacity(self.0.len() + other.0.len());
        let mut cuts = other.0.iter().peekable();
        for &Range { mut begin, end } in &self.0 {
            while cuts.next_if(|cut| cut.end < begin).is_some() {}
            // A cut may reach into the next range, so it is only looked at here.
            let mut ahead = cuts.clone();
            let mut used_up = false;
            while let Some(cut) = ahead.next_if(|cut| cut.begin <= end) {
                if cut.begin > begin {
                    left.push(Range {
                        begin,
                        end: cut.begin - 1,
                    });
                }
                if cut.end >= end {
                    used_up = true;
                    break;
                }
                begin = cut.end + 1;
            }
            if !used_up {
                left.push(Range { begin, end });
            }
        }
        self.0 = left;
    }
}

/// Sorts, and joins what overlaps or touches.
fn coalesce(ranges: &mut Vec<Range>) {
    ranges.sort_unstable();
    ranges.dedup_by(|next, kept| {
        let touches = next.begin <= kept.end.saturating_add(1);
        if touches {
            kept.end = kept.end.max(next.end);
        }
        touches
    });
}

/// `[1-3, 5-5]`
impl fmt::Display for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (i, Range { begin, end }) in self.0.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            write!(f, "{comma}{begin}-{end}")?;
        }
        f.write_str("]")
    }
}
