"""The project's own sample catalog: a seeded grammar in English and Japanese."""
