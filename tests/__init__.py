"""Tests of vim-deploy."""
