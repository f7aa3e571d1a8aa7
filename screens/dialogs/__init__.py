"""Dialogs that no single tab owns: questions, lists to choose from, help, the recipe as text."""
