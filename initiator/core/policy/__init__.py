"""Who may ask for what: patterns, conditions, and the rules and limits that are made of them. Pure decisions."""
