"""Where speech comes from: each module here only yields utterances."""
