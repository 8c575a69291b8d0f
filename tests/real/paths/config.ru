# frozen_string_literal: true

# What Puma, Rack, Sinatra and Rails take the path of a request for: the answer is a JSON list.
require 'json'
require 'uri'
require 'action_controller/railtie'
require 'sinatra/base'

class Routed < Rails::Application
  config.eager_load = true
  config.secret_key_base = 'signs no cookie here'
  config.logger = Logger.new(File::NULL)
  config.hosts.clear
  routes.append do
    root to: 'read#show'
    get '*path', to: 'read#show', format: false
  end
end

class ReadController < ActionController::API
  def show
    render json: ["/#{params[:path]}", request.path, request.path_info]
  end
end

Routed.initialize!

class Sinatraed < Sinatra::Base
  set :environment, :production
  get('/*') { ["/#{params[:splat].first}", request.path_info].to_json }
end

run(lambda do |env|
  seen = [env['PATH_INFO'], env['REQUEST_PATH']]
  unescaped = Rack::Utils.unescape_path(env['PATH_INFO'])
  seen << unescaped << Rack::Utils.clean_path_info(unescaped)
  [Routed, Sinatraed].each do |app|
    status, _headers, body = app.call(env.dup)
    text = +''
    body.each { |part| text << part }
    seen.concat(JSON.parse(text)) if status == 200
  end
  [200, { 'Content-Type' => 'application/json' }, [seen.map { |path| path.dup.force_encoding("UTF-8").scrub }.to_json]]
end)
