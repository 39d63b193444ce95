"""Who is believed: signatures, what a name stands for, older versions, what is not for everybody."""
