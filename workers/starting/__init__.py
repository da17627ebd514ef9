"""How jobs start: in which order, in which slot, in which task of the loop."""
