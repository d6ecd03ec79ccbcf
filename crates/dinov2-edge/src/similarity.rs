/// Cosine of the angle between two vectors; 1 for two zero vectors, 0 for one.
pub fn cosine(x: &[f32], y: &[f32]) -> f64 {
    let dot = |x: &[f32], y: &[f32]| x.iter().zip(y).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
    match (dot(x, x), dot(y, y)) {
        (0.0, 0.0) => 1.0,
        (0.0, _) | (_, 0.0) => 0.0,
        (xx, yy) => dot(x, y) / (xx.sqrt() * yy.sqrt()),
    }
}
