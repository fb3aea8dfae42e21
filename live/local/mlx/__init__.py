"""A local cluster of MLX ranks: EXO's own engine, with mlx-lm's layers, in an environment of its own."""
