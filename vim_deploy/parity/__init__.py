"""How far two runners are apart."""
