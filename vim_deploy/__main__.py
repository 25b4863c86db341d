"""``python -m vim_deploy``."""

from vim_deploy.cli.main import main

main()
