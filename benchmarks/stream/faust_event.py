"""A plain Faust agent that calls the model event by event: what one writes first."""

from __future__ import annotations

import asyncio
from typing import Any

from benchmarks.stream.faust_worker import Arguments, categorize, load_serving, make_app, run


def main() -> None:
    arguments = Arguments.parse()
    serving = load_serving(arguments.release)
    app = make_app(arguments)
    categories = app.topic(arguments.categories)
    attributes = app.topic(arguments.attributes)

    @app.agent(app.topic(arguments.input))
    async def categorize_products(stream: Any) -> None:
        async for event in stream.events():
            for result in categorize(serving, [event.message]):
                await asyncio.gather(
                    categories.send(key=result.key, value=result.categories),
                    attributes.send(key=result.key, value=result.attributes),
                )

    run(app)


if __name__ == "__main__":
    main()
