"""The GoG-Instruct builder: questions and a teacher in, a checked set out."""
