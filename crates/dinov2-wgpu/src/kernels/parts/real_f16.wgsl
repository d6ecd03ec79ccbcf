enable f16;
// Activations between kernels, and float weights: 16 bits.
alias Real = f16;
alias Real4 = vec4<f16>;
