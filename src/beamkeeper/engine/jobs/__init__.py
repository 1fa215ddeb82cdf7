"""Running jobs: the loop that decides, the spawner that forks, and the runners that outlive both."""
