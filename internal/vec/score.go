package vec

// Sigmoid computes s = 1/(1+e^−z) for a tile of the given number of rows. s and z may be the same.
func Sigmoid(s, z []float32, rows int) { active.sigmoid(s, z, rows) }

// SigmoidBackward turns ∂L/∂s into ∂L/∂z in place: g ← g·s·(1−s).
func SigmoidBackward(g, s []float32, rows int) { active.sigmoidBackward(g, s, rows) }

// Softmax computes s = softmax(z) over the rows of a tile, token by token; sums run over the rows in order. s and z may be
// the same.
func Softmax(s, z []float32, rows int) { active.softmax(s, z, rows) }

// SoftmaxBackward turns ∂L/∂s into ∂L/∂z in place: g_j ← s_j·(g_j − Σ_i g_i·s_i).
func SoftmaxBackward(g, s []float32, rows int) { active.softmaxBackward(g, s, rows) }

// SqrtSoftplus computes s = √(ln(1+e^z)) (DeepSeek-V4's score). s and z may be the same.
func SqrtSoftplus(s, z []float32, rows int) { active.sqrtSoftplus(s, z, rows) }

// SqrtSoftplusBackward turns ∂L/∂s into ∂L/∂z in place: g ← g·σ(z)/(2s), with σ(z) = 1 − e^(−s²).
func SqrtSoftplusBackward(g, s []float32, rows int) { active.sqrtSoftplusBackward(g, s, rows) }
