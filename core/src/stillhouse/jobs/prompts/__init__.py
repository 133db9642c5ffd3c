"""What a row's columns become: a chat or a text, its parameters, its images."""
