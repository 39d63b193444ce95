"""Answers to other machines: who may ask, what they are told, bytes in turn. Rules P1-P13 and P17."""
