"""What ``bench/peers.py`` needs: closed forms of both tools, and a process for each of them."""
