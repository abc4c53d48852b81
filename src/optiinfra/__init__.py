"""OptiInfra: lowers the cost and raises the speed of LLM serving without hurting answer quality."""
