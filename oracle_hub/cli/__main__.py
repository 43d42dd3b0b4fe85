from oracle_hub.cli import main

raise SystemExit(main())
