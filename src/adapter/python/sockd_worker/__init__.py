"""The program of a template, and of the workers that it forks: what is the same for every Python server.

What it is for. sockd runs a template with the interpreter of the application's environment, where nothing of sockd is
installed. So the modules travel in one memfd, and bootstrap.py registers them; modules.json has the modules of each
server. An application that has a module of its own called sockd_worker gets this package in its place.
"""
