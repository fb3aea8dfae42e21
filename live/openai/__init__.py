"""Any server that speaks OpenAI's chat completions: its streams as Measurements.

Nothing is placed here and nothing is known of what stands behind the server but what it says of itself; the
scenario says the rest. Servers differ in how they count, so how was counted is part of every file.
"""
