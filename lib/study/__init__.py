"""Study: parameters, variants and runs; where results lie and whether they are still those of their parameters."""
