"""What `tutelage doctor` looks at: the teacher, the sizes of the losses, time and memory."""
