//! Ours and theirs by turns: what the machine does meanwhile concerns both.

use std::future::Future;

use serde::Serialize;

/// The middle of several measurements, and how far they lie apart.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The smallest.
    pub least: f64,
    /// The largest.
    pub most: f64,
}

impl Spread {
    /// Of at least one measurement.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (least, most) = (values[0], values[values.len() - 1]);
        let middle = values.len() / 2;
        let median =
            if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Self { median, least, most }
    }
}

/// Measurements of ours and of a baseline, taken by turns.
#[derive(Clone, Debug)]
pub struct Pairs {
    ours: Vec<f64>,
    theirs: Vec<f64>,
}

impl Pairs {
    /// Measures both so many times. Which goes first changes with each pair, so that neither always finds what the other
    /// left behind.
    ///
    /// # Errors
    /// Those of a measurement.
    pub async fn take<O, T>(
        pairs: usize,
        mut ours: impl FnMut() -> O,
        mut theirs: impl FnMut() -> T,
    ) -> anyhow::Result<Self>
    where
        O: Future<Output = anyhow::Result<f64>>,
        T: Future<Output = anyhow::Result<f64>>,
    {
        let mut all = Self { ours: vec![], theirs: vec![] };
        for nth in 0..pairs {
            if nth % 2 == 0 {
                all.ours.push(ours().await?);
                all.theirs.push(theirs().await?);
            } else {
                all.theirs.push(theirs().await?);
                all.ours.push(ours().await?);
            }
        }
        Ok(all)
    }

    /// Ours.
    pub fn ours(&self) -> Spread {
        Spread::of(self.ours.iter().copied())
    }

    /// Theirs.
    pub fn theirs(&self) -> Spread {
        Spread::of(self.theirs.iter().copied())
    }

    /// Ours by theirs, pair by pair.
    pub fn ratio(&self) -> Spread {
        Spread::of(self.ours.iter().zip(&self.theirs).map(|(ours, theirs)| ours / theirs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_ratio_is_that_of_the_pair_in_the_middle() {
        let (mut ours, mut theirs) = ([10., 90., 30.].into_iter(), [10., 30., 20.].into_iter());
        let (mut our, mut their) = (|| ours.next().expect("three"), || theirs.next().expect("three"));
        let pairs = Pairs::take(3, || std::future::ready(Ok(our())), || std::future::ready(Ok(their()))).await;
        let pairs = pairs.expect("nothing fails");
        assert_eq!((pairs.ratio().median, pairs.ratio().least, pairs.ratio().most), (1.5, 1., 3.));
        assert_eq!((pairs.ours().median, pairs.theirs().median), (30., 20.));
        assert!((Spread::of([1., 2.]).median - 1.5).abs() < f64::EPSILON);
    }
}
