"""The pages that people look at: what a store says, as records, and those as HTML. What a page shows is only read."""
