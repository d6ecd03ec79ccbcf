//! Hadamard matrices: entries ±1, rows orthogonal.

/// The Hadamard matrix of an order, row-major, by Paley's first construction (order `q + 1`, `q` a prime that is 3 modulo 4),
/// doubled by Sylvester's as often as needed. `None` for other orders; every width of DINOv2 has one.
pub(super) fn hadamard(order: usize) -> Option<Vec<f64>> {
    if order <= 1 {
        return (order == 1).then(|| vec![1.0]);
    }
    let half = order.is_multiple_of(2).then(|| hadamard(order / 2)).flatten();
    half.map(|half| double(&half, order / 2)).or_else(|| paley(order))
}

/// `[[H, H], [H, -H]]`.
fn double(half: &[f64], side: usize) -> Vec<f64> {
    let entry = |row: usize, col: usize| {
        let value = half[(row % side) * side + col % side];
        if row >= side && col >= side { -value } else { value }
    };
    (0..4 * side * side).map(|at| entry(at / (2 * side), at % (2 * side))).collect()
}

/// `I + S`, where `S` is the bordered matrix of quadratic residues modulo `order - 1`.
fn paley(order: usize) -> Option<Vec<f64>> {
    let prime = order.checked_sub(1).filter(|&q| q % 4 == 3 && is_prime(q))?;
    let mut residue = vec![-1.0; prime];
    (1..prime).for_each(|root| residue[root * root % prime] = 1.0);
    residue[0] = 0.0;
    let entry = |row: usize, col: usize| match (row, col) {
        (row, col) if row == col => 1.0,
        (0, _) => 1.0,
        (_, 0) => -1.0,
        (row, col) => residue[(row + prime - col) % prime],
    };
    Some((0..order * order).map(|at| entry(at / order, at % order)).collect())
}

fn is_prime(number: usize) -> bool {
    number > 1
        && (2..).take_while(|factor| factor * factor <= number).all(|factor| !number.is_multiple_of(factor))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_orthogonal() {
        for order in [1, 2, 4, 8, 12, 20, 24, 64, 96, 192, 384, 768] {
            let matrix = hadamard(order).unwrap_or_else(|| panic!("{order}"));
            assert!(matrix.iter().all(|entry| entry.abs() == 1.0), "{order}");
            for row in matrix.chunks_exact(order) {
                let same = matrix.chunks_exact(order).filter(|other| {
                    let product: f64 = row.iter().zip(*other).map(|(a, b)| a * b).sum();
                    assert!(product == 0.0 || product == order as f64, "{order}: {product}");
                    product != 0.0
                });
                assert_eq!(same.count(), 1, "{order}");
            }
        }
        assert!(hadamard(1536).is_some() && hadamard(1024).is_some());
        assert!([0, 3, 6, 10].into_iter().all(|order| hadamard(order).is_none()));
    }
}
