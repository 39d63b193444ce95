"""The asking side: who is there, what they have, and bringing them to a session. Rules P2-P9 and P13-P16."""
