"""The checks of `tutelage doctor`: the teacher, the sizes of the losses, time and memory."""
