"""Two runs side by side: what differs in their configs, networks and curves."""
