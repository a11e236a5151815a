"""The measurements behind docs/performance.md; `Benchmarks/run` starts them."""
