"""The decision: rules over evidence, and simulations of what they let through. Pure, but for gathering the evidence."""
