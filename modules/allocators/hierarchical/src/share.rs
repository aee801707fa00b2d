//! Dominant shares as exact enough integers.

use std::collections::BTreeSet;

use tepui_module_sdk::model::resources::Quantities;

/// A share with 60 bits after the point: 1 / weight for whoever has everything of something.
pub(crate) type Share = u128;

const BITS: u32 = 60;

/// The usual weight, in thousandths.
pub(crate) const WHOLE: u64 = 1000;

/// The greatest part of any resource that `taken` is of `total`, divided by the weight (thousandths).
pub(crate) fn share(
    taken: &Quantities,
    total: &Quantities,
    weight: u64,
    excluded: &BTreeSet<String>,
) -> Share {
    let parts = taken
        .iter()
        .filter(|(name, _)| !excluded.contains(name.as_str()))
        .filter_map(|(name, amount)| {
            let total = u64::try_from(total.get(name).0)
                .ok()
                .filter(|total| *total > 0)?;
            let amount = u64::try_from(amount.0).ok()?;
            Some((amount, total))
        });
    // Divided once: fractions are compared by their cross products, which are below 2^126.
    let product = |left: u64, right: u64| u128::from(left) * u128::from(right);
    let greater = |a: &(u64, u64), b: &(u64, u64)| product(a.0, b.1).cmp(&product(b.0, a.1));
    // Amounts are below 2^63, so the product is below 2^123.
    let dominant = parts.max_by(greater).map_or(0, |(amount, total)| {
        (u128::from(amount) << BITS) / u128::from(total)
    });
    if weight == WHOLE {
        return dominant;
    }
    // A weight is never zero in Mesos; one that is counts as the smallest there is.
    dominant.saturating_mul(u128::from(WHOLE)) / u128::from(weight.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tepui_module_sdk::model::resources::Resources;

    fn amounts(cpus: f64, mem: f64) -> Quantities {
        Resources::cpus_mem(cpus, mem).quantities()
    }

    #[test]
    fn the_dominant_part_counts_and_the_weight_divides() {
        let total = amounts(10.0, 1000.0);
        let none = BTreeSet::new();
        let of = |cpus, mem, weight| share(&amounts(cpus, mem), &total, weight, &none);
        assert_eq!(of(0.0, 0.0, 1000), 0);
        assert!(of(1.0, 500.0, 1000) > of(4.0, 100.0, 1000));
        assert_eq!(of(2.0, 10.0, 2000), of(1.0, 10.0, 1000));
        assert_eq!(of(10.0, 10.0, 1000), 1 << BITS);
        let excluded = BTreeSet::from(["mem".to_owned()]);
        assert!(share(&amounts(1.0, 900.0), &total, 1000, &excluded) < of(2.0, 0.0, 1000));
        // Something the cluster has none of, for it left, does not count.
        assert_eq!(share(&total, &Quantities::new(), 1000, &none), 0);
    }
}
