"""Ways to repair a flagged draft. Each proposes edits; the engine judges them again and selects."""
